"""What the coordinator stores, in SQL: tables, transactions, one module of queries per noun."""
