-- Finished generations that nobody noted for the object store: those of a release before.
-- ARGV: 1 where to go on in the store's keys, '0' at first, 2 how many are looked at
-- Returns where to go on, '0' at the end
local reply = redis.call('SCAN', ARGV[1], 'MATCH', KEY.generation .. '*', 'COUNT', ARGV[2])
for _, key in ipairs(reply[2]) do
  local id, completed = unpack(redis.call('HMGET', key, 'id', 'completed_ms'))
  if id and completed then redis.call('ZADD', KEY.archiving, 'NX', completed, id) end
end
return reply[1]
