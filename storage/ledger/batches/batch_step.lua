-- The process that holds a batch got on with it: holds it on, or leaves it.
-- ARGV: 1 id, 2 until when it is held, 3 the phase that was worked on, 4 its next line, 5 the phase that follows now or '',
--       6 ms it is held on, or 7 ms until somebody is to go on, the other being ''
-- Returns {until when it is held or '', record as a flat list}, or false when it is held no more
local LOOK_MS = 20000
local key, at = KEY.batch .. ARGV[1], now_ms()
local batch = named(redis.call('HGETALL', key))
if batch.held ~= ARGV[2] then return false end
-- Another phase may have been asked for meanwhile.
if batch.phase == ARGV[3] then
  redis.call('HSET', key, 'cursor', ARGV[4])
  if ARGV[5] ~= '' then redis.call('HSET', key, 'phase', ARGV[5], 'cursor', 0) end
  if ARGV[5] ~= '' and ARGV[3] == 'submitting' then redis.call('DEL', KEY.batch_lines .. ARGV[1]) end
end
local held = ''
if ARGV[6] ~= '' then
  held = integer(at + tonumber(ARGV[6]))
  redis.call('HSET', key, 'held', held)
  redis.call('ZADD', KEY.batch_turns, held, ARGV[1])
else
  redis.call('HDEL', key, 'held')
  batch = named(redis.call('HGETALL', key))
  local is_waiting = batch.phase == 'running' and not batch_is_over(batch)
  if is_waiting then
    -- The end of its last generation calls somebody at once; until then it is looked at now and then: its key may be revoked.
    redis.call('ZADD', KEY.batch_turns, integer(at + LOOK_MS), ARGV[1])
  else
    local is_next = batch.phase ~= ARGV[3] or ARGV[5] ~= ''
    redis.call('ZADD', KEY.batch_turns, integer(is_next and at or at + tonumber(ARGV[7])), ARGV[1])
  end
end
return { held, redis.call('HGETALL', key) }
