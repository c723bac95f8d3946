-- A webhook that was held is called later, without a try: its receiver is given a rest.
-- ARGV: 1 ms until then, 2 tenant, 3 id/moment, 4 until when it was held
-- Returns 1, or 0 when it became due anew meanwhile
local held = redis.call('ZSCORE', KEY.webhooks .. ARGV[2], ARGV[3])
if not held or integer(held) ~= ARGV[4] then return 0 end
webhook_at(ARGV[2], ARGV[3], now_ms() + tonumber(ARGV[1]))
return 1
