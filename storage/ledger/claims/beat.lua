-- Renews the lease and records progress, while the claim still holds.
-- ARGV: 1 id, 2 token, 3 lease in ms, 4 steps done, 5 steps in all, 6 phase, 7 percent of the model loaded, 8 preview or ''
-- Returns 'held' | 'lost'
local key = KEY.generation .. ARGV[1]
local state = redis.call('HMGET', key, 'status', 'token', 'step')
if state[1] ~= 'processing' or state[2] ~= ARGV[2] then return 'lost' end
redis.call('HSET', key, 'phase', ARGV[6], 'loaded_percent', ARGV[7])
redis.call('ZADD', KEY.leases, integer(now_ms() + tonumber(ARGV[3])), ARGV[1])
if tonumber(ARGV[4]) > tonumber(state[3] or 0) then
  redis.call('HSET', key, 'step', ARGV[4])
  local fields = { 'step', ARGV[4], 'steps', ARGV[5] }
  if ARGV[8] ~= '' then fields[5], fields[6] = 'preview', ARGV[8] end
  emit('media_generation_progress', record_of(ARGV[1]), 'processing', fields)
end
return 'held'
