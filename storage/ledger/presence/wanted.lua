-- What a worker is to load, or to let go of. Of several workers one takes it, and another when that one is gone.
-- ARGV: 1 worker, 2 its GPU type, 3 its region, 4... models it serves
-- Returns {model, 'once' | 'always' | 'never', until_ms, ...}; what is wanted once is told once
local models, found, taken = {}, {}, false
local function tell(model, wish)
  for _, one in ipairs({ model, wish.how, integer(wish.until_ms) }) do found[#found + 1] = one end
end
for i = 4, #ARGV do models[ARGV[i]] = true end
for target, text in pairs(named(redis.call('HGETALL', KEY.wanted))) do
  local wish = cjson.decode(text)
  local model, gpu_type, region = string.match(target, '^(.+)|(.+)|(.+)$')
  local mine = models[model] and (gpu_type == 'any' or gpu_type == ARGV[2]) and (region == 'any' or region == ARGV[3])
  if wish.how ~= 'always' and wish.until_ms < now_ms() then
    redis.call('HDEL', KEY.wanted, target)
  elseif mine and wish.how == 'never' then
    tell(model, wish)
  elseif mine and wish.worker == ARGV[1] then
    tell(model, wish)
    if wish.how == 'once' then redis.call('HDEL', KEY.wanted, target) end
  elseif mine and not taken and (not wish.worker or redis.call('EXISTS', KEY.alive .. wish.worker) == 0) then
    -- One at a time: others may be idle, and not all may fit.
    taken = true
    wish.worker = ARGV[1]
    if wish.how == 'once' then
      redis.call('HDEL', KEY.wanted, target)
    else
      redis.call('HSET', KEY.wanted, target, cjson.encode(wish))
    end
    tell(model, wish)
  end
end
return found
