-- Whether this is the first time that somebody takes a terminal generation's result from a stream.
-- ARGV: 1 id, 2 tenant
-- Returns 1 | 0, or -1 where it is not here
local record = record_of(ARGV[1])
if record.tenant ~= ARGV[2] then return -1 end
if not record.completed_ms then return 0 end
return redis.call('HSETNX', KEY.generation .. record.id, 'drained', 1)
