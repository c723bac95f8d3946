-- Counts against a rate (GCRA): as much as the rate allows evenly, and so much of it at once.
-- ARGV: 1 what is counted, 2 how much in a minute, 3 how much now, below zero to take it back, 4 ms whose worth may come at once,
--       5 the most that comes at once: more than those ms allow comes when nothing else has of late
-- Returns {ms that it comes too soon, 0 when it does not; how much more may come now; ms until as much may come at once as ever}
local unit_ms = 60000 / tonumber(ARGV[2])
local cost_ms = unit_ms * tonumber(ARGV[3])
local burst_ms = math.max(cost_ms, tonumber(ARGV[4]))
local name, at = KEY.api_key_pace .. ARGV[1], now_ms()
-- No later than it can have come to be, whatever the clock was then.
local due = math.min(math.max(tonumber(redis.call('GET', name) or 0), at), at + math.max(burst_ms, unit_ms * tonumber(ARGV[5])))
local early = due + cost_ms - burst_ms - at
if early > 0 and cost_ms > 0 then return { math.ceil(early), 0, math.ceil(due - at) } end
local used_ms = math.max(0, due + cost_ms - at)
redis.call('SET', name, string.format('%.3f', at + used_ms), 'PX', integer(used_ms + 1000))
return { 0, math.max(0, math.floor((math.max(tonumber(ARGV[4]), unit_ms) - used_ms) / unit_ms + 0.001)), math.ceil(used_ms) }
