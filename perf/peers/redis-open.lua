-- Opens approvals ARGV[1] to ARGV[2] - 1 with ARGV[3] validators of whom ARGV[4] must approve.
for id = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do
    redis.call('HSET', 'a:' .. id, 's', 1, 'n', ARGV[3], 'q', ARGV[4], '1', 0, '2', 0, '3', 0)
end
