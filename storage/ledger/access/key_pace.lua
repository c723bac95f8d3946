-- Counts a submission of an API key against its rate (GCRA): one in so often, a tenth of a minute's at once.
-- ARGV: 1 id, 2 submissions in a minute
-- Returns for how many ms it comes too soon, 0 when it does not
local every_ms = 60000 / tonumber(ARGV[2])
local burst_ms = math.max(every_ms, 6000)
local name, at = KEY.api_key_pace .. ARGV[1], now_ms()
local due = math.max(tonumber(redis.call('GET', name) or 0), at)
local early = due + every_ms - burst_ms - at
if early > 0 then return math.ceil(early) end
redis.call('SET', name, string.format('%.3f', due + every_ms), 'PX', integer(due + every_ms - at + 1000))
return 0
