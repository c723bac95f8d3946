-- Forgets a batch; its generations stay.
-- ARGV: 1 id, 2 tenant
-- Returns 1 | 0
local LATE_MS = 600000
if redis.call('HGET', KEY.batch .. ARGV[1], 'tenant') ~= ARGV[2] then return 0 end
redis.call('DEL', KEY.batch .. ARGV[1], KEY.batch_lines .. ARGV[1])
redis.call('ZREM', KEY.batches .. ARGV[2], ARGV[1])
redis.call('ZREM', KEY.batch_turns, ARGV[1])
-- The caller deletes them. One that is just writing its manifest may be later.
redis.call('ZADD', KEY.expiring, integer(now_ms() + LATE_MS), batch_folder(ARGV[2], ARGV[1]))
webhook_gone(ARGV[2], ARGV[1] .. '/batch')
return 1
