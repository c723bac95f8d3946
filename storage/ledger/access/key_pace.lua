-- Counts against a rate (GCRA): as much as the rate allows evenly, and so much of it at once.
-- ARGV: 1 what is counted, 2 how much in a minute, 3 how much now, 4 ms whose worth may come at once
-- Returns for how many ms it comes too soon, 0 when it does not
local cost_ms = 60000 / tonumber(ARGV[2]) * tonumber(ARGV[3])
local burst_ms = math.max(cost_ms, tonumber(ARGV[4]))
local name, at = KEY.api_key_pace .. ARGV[1], now_ms()
local due = math.max(tonumber(redis.call('GET', name) or 0), at)
local early = due + cost_ms - burst_ms - at
if early > 0 then return math.ceil(early) end
redis.call('SET', name, string.format('%.3f', due + cost_ms), 'PX', integer(due + cost_ms - at + 1000))
return 0
