-- Objects below a prefix are kept for a while, then deleted; for longer, where that is known already.
-- ARGV: 1 prefix, 2 ms from now, 3 '<tenant>:<idempotency key>' of a request that they belong to where it was accepted before, 4 its
--       batch and 5 its generation, all or ''; then it is for that request to say
-- Returns 1, or 0 where it was accepted before
if ARGV[3] ~= '' and redis.call('EXISTS', KEY.idempotency .. ARGV[3]) == 1 then return 0 end
if ARGV[4] ~= '' and redis.call('SISMEMBER', KEY.batch_lines .. ARGV[4], ARGV[5]) == 1 then return 0 end
redis.call('ZADD', KEY.expiring, 'GT', integer(now_ms() + tonumber(ARGV[2])), ARGV[1])
return 1
