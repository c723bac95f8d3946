-- A model is wanted on a target, once or until it is wanted no more; or it is to be let go, wherever the target says.
-- ARGV: 1 model, 2 GPU type or 'any', 3 region or 'any', 4 'once' | 'always' | 'never', 5 ms after which nobody need care any more,
--       6 the worker that is to see to it, or ''
for target, text in pairs(named(redis.call('HGETALL', KEY.wanted))) do
  local model, gpu_type, region = string.match(target, '^(.+)|(.+)|(.+)$')
  local covered = (ARGV[2] == 'any' or ARGV[2] == gpu_type) and (ARGV[3] == 'any' or ARGV[3] == region)
  -- To let go ends the wishes it covers; to want it again ends the letting go.
  local ends = covered
  if ARGV[4] ~= 'never' then ends = cjson.decode(text).how == 'never' end
  if model == ARGV[1] and ends then redis.call('HDEL', KEY.wanted, target) end
end
local target = ARGV[1] .. '|' .. ARGV[2] .. '|' .. ARGV[3]
local before = redis.call('HGET', KEY.wanted, target)
if ARGV[4] == 'once' and before and cjson.decode(before).how == 'always' then return 0 end
local wish = { how = ARGV[4], until_ms = now_ms() + tonumber(ARGV[5]) }
if ARGV[6] ~= '' then wish.worker = ARGV[6] end
redis.call('HSET', KEY.wanted, target, cjson.encode(wish))
return 1
