-- A tenant wants a model on a target, once or until it is wanted no more; or wants it let go, wherever the target says.
-- ARGV: 1 model, 2 GPU type or 'any', 3 region or 'any', 4 'once' | 'always' | 'never', 5 ms after which nobody need care any more,
--       6 the worker that is to see to it, or '', 7 tenant
-- Returns 0 when somebody keeps it loaded, or is about to have it loaded, and nothing comes of this
local kept = false
for target, text in pairs(named(redis.call('HGETALL', KEY.wanted))) do
  local model, gpu_type, region = string.match(target, '^(.+)|(.+)|(.+)$')
  if model == ARGV[1] then
    local wish = cjson.decode(text)
    local covered = (ARGV[2] == 'any' or ARGV[2] == gpu_type) and (ARGV[3] == 'any' or ARGV[3] == region)
    if ARGV[4] ~= 'never' then
      -- To want it again ends the letting go.
      if wish.how == 'never' then redis.call('HDEL', KEY.wanted, target) end
    elseif not covered then
      -- What is kept anywhere may be kept on the very worker that this would be told to.
      local overlaps = (ARGV[2] == 'any' or gpu_type == 'any' or ARGV[2] == gpu_type)
        and (ARGV[3] == 'any' or region == 'any' or ARGV[3] == region)
      for tenant in pairs(overlaps and wish.how ~= 'never' and wish.tenants or {}) do
        if tenant ~= ARGV[7] then kept = true end
      end
    else
      -- To let go ends the tenant's own wishes that it covers. What nobody is named for a release before noted.
      if wish.tenants then wish.tenants[ARGV[7]] = nil end
      if wish.how ~= 'never' and wish.tenants and next(wish.tenants) then
        kept = true
        redis.call('HSET', KEY.wanted, target, cjson.encode(wish))
      else
        redis.call('HDEL', KEY.wanted, target)
      end
    end
  end
end
if kept then return 0 end
local target = ARGV[1] .. '|' .. ARGV[2] .. '|' .. ARGV[3]
local before = redis.call('HGET', KEY.wanted, target)
local wish = before and cjson.decode(before)
if ARGV[4] == 'once' and wish and wish.how == 'always' then return 0 end
local tenants = wish and wish.how == ARGV[4] and wish.tenants or {}
tenants[ARGV[7]] = true
wish = { how = ARGV[4], until_ms = now_ms() + tonumber(ARGV[5]), tenants = tenants }
if ARGV[6] ~= '' then wish.worker = ARGV[6] end
redis.call('HSET', KEY.wanted, target, cjson.encode(wish))
return 1
