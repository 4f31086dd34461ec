use std::collections::HashMap;
use std::fmt;

#[derive(Debug, Clone, PartialEq)]
pub enum Token<'a> {
    Word(&'a str),
    Number(i64),
    End,
}

impl<'a> fmt::Display for Token<'a> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(word) => write!(f, "{word:?}"),
            Token::Number(number) => write!(f, "{}", number),
            Token::End => Ok(()),
        }
    }
}

pub fn count<'a>(text: &'a str) -> HashMap<&'a str, usize> {
    let mut counts = HashMap::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word).or_insert(0) += 1;
    }
    counts
}

pub fn parse(word: &str) -> Result<Token<'_>, String> {
    if word.starts_with('-') || word.chars().all(|c| c.is_ascii_digit()) {
        return word.parse().map(Token::Number).map_err(|error| format!("{word}: {error}"));
    }
    Ok(if word.is_empty() { Token::End } else { Token::Word(word) })
}
