-- What a tenant used in a month.
-- ARGV: 1 tenant, 2 month
-- Returns {what, how much, ...}
return redis.call('HGETALL', KEY.usage .. ARGV[1] .. ':' .. ARGV[2])
