-- Renews the lease and records progress, while the claim still holds.
-- ARGV: 1 id, 2 token, 3 lease in ms, 4 steps done, 5 steps in all, 6 phase
-- Returns 'held' | 'lost'
local key = KEY.generation .. ARGV[1]
local state = redis.call('HMGET', key, 'status', 'token', 'step')
if state[1] ~= 'processing' or state[2] ~= ARGV[2] then return 'lost' end
redis.call('HSET', key, 'phase', ARGV[6])
redis.call('ZADD', KEY.leases, integer(now_ms() + tonumber(ARGV[3])), ARGV[1])
if tonumber(ARGV[4]) > tonumber(state[3] or 0) then
  redis.call('HSET', key, 'step', ARGV[4])
  emit('media_generation_progress', record_of(ARGV[1]), 'processing', { 'step', ARGV[4], 'steps', ARGV[5] })
end
return 'held'
