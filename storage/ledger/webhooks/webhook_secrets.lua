-- Which of a tenant's webhook secrets hold; with a second argument another one from now on.
-- ARGV: 1 tenant, 2 ms that the present one goes on, or '' to change nothing
-- So many earlier ones may hold at a time; with more none is made, and the reply is until when the first of them holds in ms.
-- Returns that, or {version, {an earlier version, until when it holds in ms}...}, the latest first
local MOST_EARLIER = 4
local kept = redis.call('HGET', KEY.webhook_secrets, ARGV[1])
local known = kept and cjson.decode(kept) or { version = 0, earlier = {} }
local at = now_ms()
if ARGV[2] ~= '' then
  local still, first = 0, nil
  for _, one in ipairs(known.earlier) do
    if one[2] > at then
      still = still + 1
      first = math.min(first or one[2], one[2])
    end
  end
  if still >= MOST_EARLIER then return integer(first) end
  table.insert(known.earlier, 1, { known.version, at + tonumber(ARGV[2]) })
  known.version = known.version + 1
end
local reply, holding = { known.version }, {}
for _, one in ipairs(known.earlier) do
  if one[2] > at then
    holding[#holding + 1] = one
    reply[#reply + 1] = { one[1], integer(one[2]) }
  end
end
if ARGV[2] ~= '' then
  -- An empty list would be written as an object, and read as neither.
  redis.call('HSET', KEY.webhook_secrets, ARGV[1], cjson.encode({ version = known.version, earlier = holding }))
end
return reply
