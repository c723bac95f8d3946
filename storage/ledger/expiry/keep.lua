-- Objects below a prefix are kept for a while, then deleted; for longer, where that is known already.
-- ARGV: 1 prefix, 2 ms from now, 3 '<tenant>:<idempotency key>' of a request that they belong to where it was accepted before, or '':
--       then it is for that request to say
if ARGV[3] ~= '' and redis.call('EXISTS', KEY.idempotency .. ARGV[3]) == 1 then return 0 end
redis.call('ZADD', KEY.expiring, 'GT', integer(now_ms() + tonumber(ARGV[2])), ARGV[1])
return 1
