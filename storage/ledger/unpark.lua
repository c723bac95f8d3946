-- A parked generation is tried anew (failed -> queued, attempts counted from zero) or merely taken off the list.
-- ARGV: 1 id, 2 'retry' | 'drop', 3 ms it may wait in the queue
-- Returns 'done' | 'missing'
if redis.call('ZREM', KEY.parked, ARGV[1]) == 0 then return 'missing' end
local record = record_of(ARGV[1])
if ARGV[2] == 'drop' or record.status ~= 'failed' then return 'done' end
local key, at = KEY.generation .. record.id, now_ms()
record.attempts = 0
record.queue_ttl_ms = ARGV[3]
redis.call('HSET', key, 'attempts', 0, 'losses', 0, 'queue_ttl_ms', ARGV[3])
redis.call('HDEL', key, 'completed_ms', 'error_code', 'error_message')
redis.call('EXPIRE', key, LIFE.waiting)
redis.call('ZADD', KEY.active .. record.tenant, record.sequence, record.id)
redis.call('ZADD', KEY.expiring, integer(at + LIFE.waiting * 1000), record.results)
if record.inputs then redis.call('ZADD', KEY.expiring, integer(at + LIFE.waiting * 1000), record.inputs) end
requeue(record, 0)
return 'done'
