-- Which of a tenant's webhook secrets hold; with a second argument another one from now on.
-- ARGV: 1 tenant, 2 ms that the present one goes on, or '' to change nothing
-- Returns {version, until when the one before holds in ms, or 0}
local kept = redis.call('HGET', KEY.webhook_secrets, ARGV[1])
local known = kept and cjson.decode(kept) or { version = 0, until_ms = 0 }
if ARGV[2] ~= '' then
  known = { version = known.version + 1, until_ms = now_ms() + tonumber(ARGV[2]) }
  redis.call('HSET', KEY.webhook_secrets, ARGV[1], cjson.encode(known))
end
return { known.version, known.until_ms > now_ms() and integer(known.until_ms) or '0' }
