-- A webhook that was held is called later, without a try: its receiver is given a rest.
-- ARGV: 1 ms until then, 2 id/moment, 3 until when it was held
-- Returns 1, or 0 when it became due anew meanwhile
local held = redis.call('ZSCORE', KEY.webhooks, ARGV[2])
if not held or integer(held) ~= ARGV[3] then return 0 end
redis.call('ZADD', KEY.webhooks, integer(now_ms() + tonumber(ARGV[1])), ARGV[2])
return 1
