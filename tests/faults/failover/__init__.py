"""Three Valkey servers and three Sentinels, whose primary is killed and frozen under load."""
