"""What each step costs, and what Redis holds, as finished generations, queued ones and tenants become many."""
