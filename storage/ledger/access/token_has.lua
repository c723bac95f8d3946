-- Whether a generation came of a browser token.
-- ARGV: 1 token, 2 id
return redis.call('HEXISTS', KEY.token .. ARGV[1], 'id:' .. ARGV[2])
