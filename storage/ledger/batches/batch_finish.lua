-- A batch is over, its manifest written: told once, unless something was retried meanwhile.
-- ARGV: 1 id, 2 until when it is held, 3 its counts as they were told: succeeded:failed:cancelled
-- Returns 1 | 0
local key, at = KEY.batch .. ARGV[1], now_ms()
local batch = named(redis.call('HGETALL', key))
if batch.held ~= ARGV[2] then
  -- Its manifest may just have been written over by an older one: the process that works on it, or the next, writes it anew.
  if batch.phase then redis.call('HSET', key, 'overwritten', 1) end
  if batch.phase == 'over' then batch_woken(ARGV[1]) end
  return 0
end
redis.call('HDEL', key, 'held')
if batch.overwritten then
  redis.call('ZADD', KEY.batch_turns, integer(at), ARGV[1])
  return 0
end
if batch.phase == 'over' then
  redis.call('ZREM', KEY.batch_turns, ARGV[1])
  return 0
end
local counts = {}
for _, name in ipairs({ 'succeeded', 'failed', 'cancelled' }) do counts[#counts + 1] = batch[name] or '0' end
if batch.phase ~= 'running' or table.concat(counts, ':') ~= ARGV[3] or not batch_is_over(batch) then
  redis.call('ZADD', KEY.batch_turns, integer(at), ARGV[1])
  return 0
end
redis.call('HSET', key, 'phase', 'over', 'completed_ms', integer(at), 'tries_batch', 0)
redis.call('EXPIRE', key, LIFE.record)
redis.call('ZADD', KEY.expiring, integer(at + LIFE.record * 1000), batch_folder(batch.tenant, ARGV[1]))
redis.call('ZREM', KEY.batch_turns, ARGV[1])
local told = { 'total', batch.total, 'refused', batch.refused }
for i, name in ipairs({ 'succeeded', 'failed', 'cancelled' }) do
  told[#told + 1], told[#told + 2] = name, counts[i]
end
emit('media_batch_completed', { id = ARGV[1], tenant = batch.tenant, model = '' }, batch.stopped and 'cancelled' or 'succeeded', told)
if batch.webhook then webhook_at(batch.tenant, ARGV[1] .. '/batch', at) end
return 1
