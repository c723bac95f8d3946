-- failed -> queued, asked for by its tenant.
-- ARGV: 1 id, 2 tenant
-- Returns {'missing'} | {'not failed'} | {'queued', queue}
local record = record_of(ARGV[1])
if record.tenant ~= ARGV[2] then return { 'missing' } end
if record.status ~= 'failed' or record.error_code == 'invalid_input' then return { 'not failed' } end
redis.call('ZREM', KEY.parked, record.id)
revive(record, record.queue_ttl_ms)
return { 'queued', record.queue }
