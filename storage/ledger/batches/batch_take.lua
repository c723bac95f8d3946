-- A batch that is to be worked on, held for a while by the caller.
-- ARGV: 1 ms it is held
-- Returns {until when it is held, record as a flat list} | false
local at = now_ms()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.batch_turns, '-inf', integer(at), 'LIMIT', 0, 16)) do
  local key = KEY.batch .. id
  if redis.call('EXISTS', key) == 0 then
    redis.call('ZREM', KEY.batch_turns, id)
  else
    local held = integer(at + tonumber(ARGV[1]))
    redis.call('ZADD', KEY.batch_turns, held, id)
    redis.call('HSET', key, 'held', held)
    -- What is written of it from here on is newer.
    redis.call('HDEL', key, 'overwritten')
    return { held, redis.call('HGETALL', key) }
  end
end
return false
