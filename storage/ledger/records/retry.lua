-- failed -> queued, asked for by its tenant.
-- ARGV: 1 id, 2 tenant, 3 unfinished generations of a tenant at the most, 4 queued ones of all, 5 the tenant's
--       budget a month in millionths of a dollar or ''
-- Returns {'missing'} | {'not failed'} | {'full', active} | {'crowded', queued} | {'overdrawn', liable} | {'queued', queue}
local record = record_of(ARGV[1])
if record.tenant ~= ARGV[2] then return { 'missing' } end
if record.status ~= 'failed' or record.error_code == 'invalid_input' then return { 'not failed' } end
local refused = refusal(record.tenant, 1, tonumber(ARGV[3]), tonumber(ARGV[4]))
  or ARGV[5] ~= '' and overdraft(record.tenant, record.month or '', tonumber(ARGV[5]), tonumber(record.reserve or 0))
if refused then return refused end
redis.call('ZREM', KEY.parked, record.id)
revive(record, record.queue_ttl_ms)
return { 'queued', record.queue }
