-- queued | processing -> cancelled, at once: the fencing token keeps a worker that has not noticed from publishing.
-- ARGV: 1 id, 2 tenant
-- Returns 'cancelled' | 'terminal' | 'missing'
local record = record_of(ARGV[1])
if record.tenant ~= ARGV[2] then return 'missing' end
if record.status ~= 'queued' and record.status ~= 'processing' then return 'terminal' end
local at = now_ms()
if record.status == 'queued' then
  local pending = KEY.pending .. record.queue .. ':' .. record.tenant
  redis.call('ZREM', pending, record.id)
  if redis.call('EXISTS', pending) == 0 then redis.call('LREM', KEY.ring .. record.queue, 1, record.tenant) end
  one_less(record.queue)
else
  redis.call('PUBLISH', KEY.stopped, record.id)
end
settle(record, 'cancelled', at, at, {})
emit('media_generation_cancelled', record, 'cancelled', {})
return 'cancelled'
