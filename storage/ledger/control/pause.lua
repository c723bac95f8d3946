-- Nothing of a model, a tenant or a queue is claimed any more, or with 'resume' again. What runs goes on.
-- ARGV: 1 'model:<name>' | 'tenant:<name>' | 'queue:<name>', 2 'pause' | 'resume'
-- Returns 1 when that changed anything
if ARGV[2] == 'resume' then return redis.call('HDEL', KEY.paused, ARGV[1]) end
return redis.call('HSETNX', KEY.paused, ARGV[1], integer(now_ms()))
