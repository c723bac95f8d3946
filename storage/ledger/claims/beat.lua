-- Renews the lease and records progress, while the claim still holds.
-- ARGV: 1 id, 2 token, 3 lease in ms, 4 steps done, 5 steps in all, 6 phase, 7 percent of the model loaded, 8 preview or ''
-- Returns 'held' | 'lost'
local LOADED_MORE = 5
local key = KEY.generation .. ARGV[1]
local status, token, step, phase, loaded = unpack(redis.call('HMGET', key, 'status', 'token', 'step', 'phase', 'loaded_percent'))
if status ~= 'processing' or token ~= ARGV[2] then return 'lost' end
redis.call('HSET', key, 'phase', ARGV[6], 'beaten', ARGV[2])
redis.call('ZADD', KEY.leases, integer(now_ms() + tonumber(ARGV[3])), ARGV[1])
local is_further = tonumber(ARGV[4]) > tonumber(step or 0)
local is_loading = ARGV[6] == 'loading' and (phase ~= 'loading' or tonumber(ARGV[7]) >= tonumber(loaded or 0) + LOADED_MORE)
if is_further or is_loading or phase ~= ARGV[6] then redis.call('HSET', key, 'loaded_percent', ARGV[7]) end
if is_further or is_loading then
  redis.call('HSET', key, 'step', ARGV[4])
  local fields = { 'step', ARGV[4], 'steps', ARGV[5], 'phase', ARGV[6], 'loaded_percent', ARGV[7] }
  if ARGV[8] ~= '' then fields[9], fields[10] = 'preview', ARGV[8] end
  emit('media_generation_progress', record_of(ARGV[1]), 'processing', fields)
end
return 'held'
