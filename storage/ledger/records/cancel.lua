-- queued | processing -> cancelled, at once: the fencing token keeps a worker that has not noticed from publishing.
-- ARGV: 1 id, 2 tenant, 3 'queued' to leave it alone once it is processing, or 'any'
-- Returns 'cancelled' | 'terminal' | 'processing' | 'missing'
local record = record_of(ARGV[1])
if record.tenant ~= ARGV[2] then return 'missing' end
if record.status ~= 'queued' and record.status ~= 'processing' then return 'terminal' end
if record.status == 'processing' and ARGV[3] == 'queued' then return 'processing' end
cancel(record, now_ms())
return 'cancelled'
