-- Objects below each prefix are kept for a while, then deleted; for longer, where that is known already.
-- ARGV: 1 ms from now, 2 '<tenant>:<idempotency key>' of a request that they belong to where it was accepted before, 3 its batch
--       and 4 its generation, all or ''; then it is for that request to say; 5 and on the prefixes
-- Returns 1, or 0 where it was accepted before
if ARGV[2] ~= '' and redis.call('EXISTS', KEY.idempotency .. ARGV[2]) == 1 then return 0 end
if ARGV[3] ~= '' and redis.call('SISMEMBER', KEY.batch_lines .. ARGV[3], ARGV[4]) == 1 then return 0 end
local at = integer(now_ms() + tonumber(ARGV[1]))
for n = 5, #ARGV do redis.call('ZADD', KEY.expiring, 'GT', at, ARGV[n]) end
return 1
