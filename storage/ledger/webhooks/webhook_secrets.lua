-- Which of a tenant's webhook secrets hold; with a second argument another one from now on.
-- ARGV: 1 tenant, 2 ms that the present one goes on, or '' to change nothing
-- Returns {version, {an earlier version, until when it holds in ms}...}, the latest first
local kept = redis.call('HGET', KEY.webhook_secrets, ARGV[1])
local known = kept and cjson.decode(kept) or { version = 0, earlier = {} }
local at = now_ms()
if ARGV[2] ~= '' then
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
