-- Samples of every target of a model, newest first.
-- ARGV: 1 model, 2 most of each
-- Returns {target, {sample as JSON...}, ...}
local found = {}
for _, target in ipairs(redis.call('SMEMBERS', KEY.targets)) do
  if string.sub(target, 1, #ARGV[1] + 1) == ARGV[1] .. '|' then
    local samples = redis.call('LRANGE', KEY.samples .. target, 0, tonumber(ARGV[2]) - 1)
    if #samples == 0 then
      redis.call('SREM', KEY.targets, target)
    else
      found[#found + 1], found[#found + 2] = target, samples
    end
  end
end
return found
