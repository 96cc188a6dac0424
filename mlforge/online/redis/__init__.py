"""The online store on Redis, Valkey or anything that speaks their protocol and runs Lua."""
