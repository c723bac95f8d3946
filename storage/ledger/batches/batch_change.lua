-- Cancels what is left of a batch, or retries what failed of it.
-- ARGV: 1 id, 2 tenant, 3 'cancel' | 'retry'
-- Returns 'changed' | 'none' where there is nothing to be changed | 'missing'
local key = KEY.batch .. ARGV[1]
local batch = named(redis.call('HGETALL', key))
if batch.tenant ~= ARGV[2] then return 'missing' end
if ARGV[3] == 'cancel' then
  if batch.phase == 'over' or batch.phase == 'cancelling' then return 'none' end
  -- What was not submitted until now never is.
  local skipped = tonumber(batch.total) - tonumber(batch.refused) - tonumber(batch.submitted or 0) - tonumber(batch.skipped or 0)
  redis.call('HINCRBY', key, 'skipped', skipped)
  redis.call('HINCRBY', key, 'cancelled', skipped)
  redis.call('HSET', key, 'phase', 'cancelling', 'cursor', 0, 'stopped', 1)
  redis.call('DEL', KEY.batch_lines .. ARGV[1])
else
  if tonumber(batch.failed or 0) == 0 or (batch.phase ~= 'over' and batch.phase ~= 'running') then return 'none' end
  redis.call('HSET', key, 'phase', 'retrying', 'cursor', 0)
  redis.call('HDEL', key, 'completed_ms', 'stopped')
  batch_opened(ARGV[2], ARGV[1])
  redis.call('EXPIRE', key, LIFE.waiting)
end
batch_woken(ARGV[1])
return 'changed'
