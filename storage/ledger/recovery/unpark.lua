-- A parked generation is tried anew (failed -> queued, attempts counted from zero) or merely taken off the list.
-- ARGV: 1 id, 2 'retry' | 'drop', 3 ms it may wait in the queue
-- Returns 'done' | 'missing'
if redis.call('ZREM', KEY.parked, ARGV[1]) == 0 then return 'missing' end
local record = record_of(ARGV[1])
if ARGV[2] == 'drop' or record.status ~= 'failed' then return 'done' end
revive(record, ARGV[3])
return 'done'
