"""Results: judging, chatting with and exporting what was trained."""
