-- Forgets what is told of a tenant, but for what it used.
-- ARGV: 1 tenant
-- Returns how many events that were
local events = redis.call('XLEN', KEY.events .. ARGV[1])
forget_events(KEY.live_events, '-', '+', 'tenant', ARGV[1])
redis.call('DEL', KEY.events .. ARGV[1], KEY.webhook_log .. ARGV[1])
return events
