-- processing -> failed, or -> queued when it may be tried again and attempts are left.
-- ARGV: 1 id, 2 token, 3 code, 4 message, 5 may be tried again (0 or 1), 6 attempts at the most
-- Returns 'failed' | 'queued' | 'lost'
local record = record_of(ARGV[1])
if record.status ~= 'processing' or record.token ~= ARGV[2] then return 'lost' end
if ARGV[5] == '1' and tonumber(record.attempts) < tonumber(ARGV[6]) then
  requeue(record)
  return 'queued'
end
settle_failed(record, now_ms(), ARGV[3], ARGV[4])
return 'failed'
