-- Objects below a prefix are kept for a while, then deleted; for longer, where that is known already.
-- ARGV: 1 prefix, 2 ms from now or '', 3 ms since 1970 instead or '', 4 '<tenant>:<idempotency key>' of a request that they belong to
--       where it was accepted before, or '': then it is for that request to say
if ARGV[4] ~= '' and redis.call('EXISTS', KEY.idempotency .. ARGV[4]) == 1 then return 0 end
local until_ms = tonumber(ARGV[3]) or now_ms() + tonumber(ARGV[2])
redis.call('ZADD', KEY.expiring, 'GT', integer(until_ms), ARGV[1])
return 1
