-- Forgets what is told of a tenant, but for what it used.
-- ARGV: 1 tenant
-- Returns how many events that were
local events = redis.call('XLEN', KEY.events .. ARGV[1])
for _, entry in ipairs(redis.call('XRANGE', KEY.live_events, '-', '+')) do
  if named(entry[2]).tenant == ARGV[1] then redis.call('XDEL', KEY.live_events, entry[1]) end
end
redis.call('DEL', KEY.events .. ARGV[1], KEY.webhook_log .. ARGV[1])
return events
