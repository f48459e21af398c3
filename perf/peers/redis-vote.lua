-- One vote: 0 it counts, 1 a repeat, 2 another vote stands, 3 decided, 4 no such approval.
-- ARGV: the vote's number, which is validator * approvals + approval; how many approvals; and, to ask a
-- question, the decision (otherwise 96 of 100 approve, 2 reject, 2 abstain, as assent's generator).
-- An approval is a hash of its tally (a:ID) and a string with a byte for each validator (v:ID): constant
-- time and a few bytes a vote, where a hash or set of votes costs ten times that.
local number, approvals = tonumber(ARGV[1]), tonumber(ARGV[2])
local id, validator = number % approvals, math.floor(number / approvals)
local decision = ARGV[3]
if not decision then
    local draw = (id * 31 + validator * 17) % 100
    decision = draw < 96 and '1' or draw < 98 and '2' or '3'
end
local tally, votes = 'a:' .. id, 'v:' .. id
local state = redis.call('HMGET', tally, 's', 'n', 'q', '1', '2', '3')
if not state[1] then return 4 end
local stands = redis.call('GETRANGE', votes, validator, validator)
if stands ~= '' and stands ~= '\0' then return stands == decision and 1 or 2 end
if state[1] ~= '1' then return 3 end
redis.call('SETRANGE', votes, validator, decision)
redis.call('HINCRBY', tally, decision, 1)
local total, required = tonumber(state[2]), tonumber(state[3])
local approved, others = tonumber(state[4]), tonumber(state[5]) + tonumber(state[6])
if decision == '1' then approved = approved + 1 else others = others + 1 end
if approved >= required then
    redis.call('HSET', tally, 's', 2)
elseif total - others < required then
    redis.call('HSET', tally, 's', 3)
end
return 0
