-- Writes something, so that who waits for replicas waits for all that was written before.
redis.call('SET', KEY.barrier, 1, 'EX', LIFE.alive)
return 1
