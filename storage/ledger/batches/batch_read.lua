-- A batch.
-- ARGV: 1 id, 2 tenant
-- Returns record as a flat list | false
local record = redis.call('HGETALL', KEY.batch .. ARGV[1])
return named(record).tenant == ARGV[2] and record or false
