-- A webhook was called: it is done with, or due again later. What became due anew meanwhile stays as it is.
-- ARGV: 1 id, 2 moment, 3 ms until it is due again or -1 for never, 4 what the other side answered, for whoever looks,
--       5 until when it was held
-- Returns 1, or 0 when it was held no more
local member, key = ARGV[1] .. '/' .. ARGV[2], KEY.generation .. ARGV[1]
local held = redis.call('ZSCORE', KEY.webhooks, member)
if not held or integer(held) ~= ARGV[5] then return 0 end
if redis.call('EXISTS', key) == 1 then
  redis.call('HINCRBY', key, 'tries_' .. ARGV[2], 1)
  redis.call('HSET', key, 'called_' .. ARGV[2], ARGV[4])
end
if tonumber(ARGV[3]) < 0 then
  redis.call('ZREM', KEY.webhooks, member)
else
  redis.call('ZADD', KEY.webhooks, integer(now_ms() + tonumber(ARGV[3])), member)
end
return 1
