-- A model is wanted on a target, once or until it is wanted no more; or it is to be let go, wherever the target says.
-- ARGV: 1 model, 2 GPU type or 'any', 3 region or 'any', 4 'once' | 'always' | 'never', 5 ms after which nobody need care any more
for target, text in pairs(named(redis.call('HGETALL', KEY.wanted))) do
  local model, gpu_type, region = string.match(target, '^(.+)|(.+)|(.+)$')
  local covered = (ARGV[2] == 'any' or ARGV[2] == gpu_type) and (ARGV[3] == 'any' or ARGV[3] == region)
  -- To let go ends the wishes it covers; to want it again ends the letting go.
  local ends = covered
  if ARGV[4] ~= 'never' then ends = cjson.decode(text).how == 'never' end
  if model == ARGV[1] and ends then redis.call('HDEL', KEY.wanted, target) end
end
local wish = { how = ARGV[4], until_ms = now_ms() + tonumber(ARGV[5]) }
redis.call('HSET', KEY.wanted, ARGV[1] .. '|' .. ARGV[2] .. '|' .. ARGV[3], cjson.encode(wish))
return 1
