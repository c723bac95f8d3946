-- Gives a browser token edits.
-- ARGV: 1 token, 2 how many, 3 ms that it lives
redis.call('HSET', KEY.token .. ARGV[1], 'left', ARGV[2])
return redis.call('PEXPIRE', KEY.token .. ARGV[1], ARGV[3])
