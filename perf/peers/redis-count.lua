-- Of approvals ARGV[1] to ARGV[2] - 1: votes that count by the tallies, and by the votes themselves.
local tallied, kept = 0, 0
for id = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do
    local tally = redis.call('HMGET', 'a:' .. id, '1', '2', '3')
    tallied = tallied + tally[1] + tally[2] + tally[3]
    local _, votes = string.gsub(redis.call('GET', 'v:' .. id) or '', '[123]', '')
    kept = kept + votes
end
return {tallied, kept}
